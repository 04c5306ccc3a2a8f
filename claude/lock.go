package claude

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"

	"github.com/vivarium-go/vivarium/sandbox"
)

// conversations are those that this process has open, by sandbox and id.
var conversations sync.Map

func lockConversation(sandboxID, id string) (unlock func(), err error) {
	key := [2]string{sandboxID, id}
	if _, taken := conversations.LoadOrStore(key, true); taken {
		return nil, fmt.Errorf("%w: %s", ErrSessionInUse, id)
	}
	return func() { conversations.Delete(key) }, nil
}

// lockedStatus is the exit status of lockScript for a conversation in use:
// EX_TEMPFAIL of sysexits.h.
const lockedStatus = 75

// lockMark is what it says then.
const lockMark = "vivarium: the conversation is in use"

// lockScript claims a conversation and becomes the CLI: $1 is the conversation,
// the rest the command. A claim is an empty file with the name of a process, as
// its number and when it was started, and holds as long as that process lives:
// so nobody has to take it back, and one that a killed process left means
// nothing. Claiming first and then looking for others lets two that come at once
// both fail, but never both go on. What cannot be written to cannot be resumed
// either, so no claim is made there.
const lockScript = `id=$1; shift
started() { # of process $1; nothing if there is none
  { IFS= read -r s <"/proc/$1/stat"; } 2>/dev/null || return 1
  set -- ${s##*) }
  case $1 in Z | X) return 1 ;; esac
  shift 19; echo "$1"
}
dir=${CLAUDE_CONFIG_DIR:-$HOME/.claude}/vivarium-locks/$id
if own=$$.$(started $$) && mkdir -p "$dir" 2>/dev/null && : 2>/dev/null >"$dir/$own"; then
  for claim in "$dir"/*; do
    claim=${claim##*/}
    [ "$claim" = "$own" ] && continue
    if [ "$(started "${claim%%.*}")" = "${claim#*.}" ]; then
      rm -f "$dir/$own"
      echo "` + lockMark + `" >&2
      exit 75
    fi
    rm -f "$dir/$claim"
  done
fi
exec "$@"`

// locked is the command that runs a program with a claim on a conversation.
func locked(id, program string, args []string) []string {
	return append([]string{"sh", "-c", lockScript, "sh", id, program}, args...)
}

// lockedArgs are the arguments before the program.
const lockedArgs = 5

// lockError is the error of a command of locked in its own words: the shell ran,
// but not the program, or not the conversation.
func lockError(err error, stderr string) error {
	var exit *sandbox.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	switch {
	case exit.Code == lockedStatus && strings.Contains(stderr, lockMark):
		return errors.Join(ErrSessionInUse, err)
	case exit.Code == 127:
		return errors.Join(exec.ErrNotFound, err)
	}
	return err
}

// resolveContinue puts the conversation that Continue means into Resume.
func (o *Options) resolveContinue(ctx context.Context, sb *sandbox.Sandbox) (*Options, error) {
	if !o.Continue {
		return o, nil
	}
	c := &Client{sb: sb, opts: *o}
	newest, err := c.newestSession(ctx)
	if err != nil {
		return nil, err
	}
	resolved := *o
	resolved.Resume = newest
	return &resolved, nil
}
