"""What the project is measured against, side by side in one run."""
