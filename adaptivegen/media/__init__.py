"""Media: encoding and decoding, untrusted uploads, byte ranges, signed URLs, contact sheets."""
