"""Attach and detach: VolumeAttachments for the volumes of drivers that need them."""
