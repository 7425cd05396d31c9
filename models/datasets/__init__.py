"""Labelled images: downloads, folders, bundled sets, their split into training and test data."""
