"""Reading files: pictures, texts, downloads, the cache, augmentation."""
