package claude

// ForgetLocks makes this process forget which conversations it has open, as if
// it were another.
func ForgetLocks() { conversations.Clear() }
