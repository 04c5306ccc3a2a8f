// Package pool keeps sandboxes for many owners: it makes, limits, warns, saves, ends and
// replaces them, and loses none when the program is killed.
//
//	p, err := pool.Open(ctx, &pool.Options{Provider: provider, Idle: 30 * time.Minute, Save: save, Fill: fill})
//	s, err := p.Create(ctx, "acme", &pool.Config{Sandbox: &sandbox.Config{…}})
//	sb, release, err := s.Use(ctx) // not idle, and not replaced, until release
//	defer release()
//
// What a sandbox is going to be is recorded before anything is done, so whatever was
// under way is finished, or undone, by the next Pool that is opened on the same Store, or
// by another one that is. Several processes may share a Store: they take turns by leases
// in the records, and the clocks of their machines must agree to within a few seconds.
//
// The sandboxes of a pool have two tags at their provider, one of which names the pool.
// Those with that tag which no record owns are ended, so two pools at one provider
// need different names unless they share their Store.
package pool
