package usage

// Remembered is how many accounts a Rate has in memory.
func (r *Rate) Remembered() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.byName) != r.accounts.Len() {
		return -1
	}
	return len(r.byName)
}
