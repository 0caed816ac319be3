package batcher

// Ready tells why an Append would be refused now, nil if it would not.
func (b *Batcher) Ready() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return ErrClosed
	case b.failing != nil:
		return b.failing
	case b.disk >= b.opts.MaxDisk:
		return ErrFull
	}
	return nil
}
