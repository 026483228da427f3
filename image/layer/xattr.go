package layer

// TakesXattr says whether an extended attribute of this name belongs in a layer: those of overlayfs and of the host's security
// modules do not, but for file capabilities.
func TakesXattr(name string) bool { return refusedXattr(name) == nil }
