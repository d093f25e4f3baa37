"""What tests of several lanes use: each module is named after what it gives them."""
