// Package probe tries to get out of a sandbox. A test runs each probe inside
// one and fails when a probe gets through; it is linked into tests only.
//
// A probe is run as a process of its own, since some of them end theirs: the
// test shows its own binary to the sandbox, and the binary, when IsProbe says
// so, does nothing but call Main. What is to be found, the host's files,
// listeners and processes, is put there by the test and told to the probe as
// Facts on its command line.
//
// A probe gets through when it manages what must be impossible. Where a system
// call checks who asks before it looks at what is asked, the probe asks for
// nonsense: an answer that complains of the nonsense has passed the check. So
// most probes do no harm in a plain process either, and are run there too, to
// show that each can get through. Those that would do harm are Destructive.
package probe
