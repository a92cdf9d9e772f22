"""Tests. The folders mirror those of segflow."""
