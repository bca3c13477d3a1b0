"""The media cache: an HTTP cache of content-addressed media in front of the object store, a process of its own."""
