"""Reports on runs for people: Markdown tables and one HTML page without external links.

`runs` reads folders; `compare`, `diagnosis` and `published` interpret them;
`figures` and `pictures` draw; `page` combines the results.
"""
