"""Embeddings of folders of images: extraction and search."""
