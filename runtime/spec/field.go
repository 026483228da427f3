package spec

// A FieldError is what is wrong with a field of config.json, or cannot be had here.
type FieldError struct {
	Field string // "linux.resources.memory.limit"
	Err   error
}

// Error names the file, the field and the cause.
func (e *FieldError) Error() string { return "config.json: " + e.Field + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *FieldError) Unwrap() error { return e.Err }
