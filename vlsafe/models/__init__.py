"""The LightningModule, the VLLMs it tunes, what of them trains, and how they are exported."""
