"""Presets: how known public logs map to the event schema."""
