"""The real Timeloop and Accelergy: finding them, giving them our files, reading what they answer."""
