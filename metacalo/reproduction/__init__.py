"""`metacalo reproduce`: a result made again and compared, part by part."""
