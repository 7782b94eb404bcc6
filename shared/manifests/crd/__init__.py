"""CustomResourceDefinitions, made from the manifest types: what the API server itself checks, fills in and prints."""
