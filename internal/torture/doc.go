// Package torture runs many agents at once and cuts everything around them: the
// processes that follow them (kill -9), the database that their logs are in (a crash and
// a restart), and those who read the logs. Nothing may be lost, doubled, or called
// finished that is not. It is tests only: `make torture` is the whole of it, with
// figures.
package torture
