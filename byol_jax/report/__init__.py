"""What a person sees of runs: Markdown tables, and one HTML page without outside links.

`runs` reads folders, `compare`, `diagnosis` and `published` say what is in them,
`figures` and `pictures` draw, `page` puts it together.
"""
