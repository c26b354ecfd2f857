"""What several test folders share: programs started for a test, and the gateway as one of them."""
