"""The search modes: what each is given (`settings`, without torch), and how each learns."""
