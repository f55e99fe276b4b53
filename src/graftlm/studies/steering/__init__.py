"""What makes a frozen decoder steerable: which parts to tune, and how the graft is adapted before it is frozen."""
