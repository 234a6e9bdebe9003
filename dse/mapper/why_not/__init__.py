"""Why a layer has no mapping, and the smallest sizes with which it would have one."""
