"""From files to scans: image files, decoding, crop and resize, in one way for training and for new scans."""
