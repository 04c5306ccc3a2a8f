// Package usage limits what accounts use, and keeps a ledger of what they used. It
// knows nothing of sandboxes: whoever makes them asks it.
//
//   - A [Quota] says how much an account may use. A limit that is passed is an
//     [*ExceededError], which says what to do about it and when to come back.
//   - A [Ledger] hands out places under the limits, one for each sandbox, run or
//     transfer that goes on, so that two servers never both take the last one; and it
//     adds up what was used, each use once. [Memory] is one, and package sqlstore has
//     those for SQLite and PostgreSQL. [ReleaseGone] frees the places of what a crash
//     has left behind, [ExportDays] and [ExportEntries] write a bill's lines.
//   - A [Rate] limits requests per second, in the memory of one server.
//
// # A place, from its beginning to its end
//
//	place, err := ledger.Reserve(ctx, usage.Reservation{Account: "acme", Kind: usage.KindRun, ID: "run-1", Quota: quota})
//	…
//	err = ledger.Add(ctx, usage.Entry{Account: "acme", Kind: usage.KindRun, ID: "run-1", Amounts: used})
//	err = ledger.Release(ctx, "acme", usage.KindRun, "run-1")
//
// Each of the three can be said again, by the same server or another one, after an
// error or a crash: a place is taken once for an ID, an entry is added once for an ID,
// and a place that was released cannot be released for somebody else.
//
// # What a day has left
//
// Days are those of UTC. Of a limit per day is gone what the ledger's entries of the
// day add up to, and what the places of the account hold: what goes on counts as used
// until it is known what it used. A place holds what its reservation asks for
// ([Reservation.Hold]), or what is left if that is less; an entry takes its amounts from
// what its place holds, so that nothing counts twice, and with the place goes what is
// left of it. So runs that have a budget and hold it never use more together than the
// day has. One that holds nothing begins as long as anything is left, and what it uses
// beyond that is used: the limit is passed by what those runs use that were going on when
// it was reached, and no other begins until the next day.
//
// An entry belongs to the day of its time, whole, although what it is about may have
// begun the day before. What a place holds counts on whatever day somebody asks for
// another, as it may be used then.
package usage
