//go:build unix

package keeper

import (
	"fmt"
	"os"

	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// stepError is what a process that could not start says itself.
type stepError struct {
	step string
	err  error
}

func (e *stepError) Error() string { return e.step + ": " + e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

// receiveUppers receives the directories behind what can be written, to be
// handed on to the helper.
func (b *box) receiveUppers(conn *wire.Conn, boot *wire.Boot) (dirs []*os.File, err error) {
	var st wire.Status
	fds, err := conn.Receive(&st)
	if err != nil {
		return nil, err
	}
	for i, fd := range fds {
		dirs = append(dirs, os.NewFile(uintptr(fd), fmt.Sprint("upper", i)))
	}
	if st.Err != nil {
		return dirs, &stepError{st.Step, st.Err}
	}
	boot.Uppers, boot.Entering = st.Uppers, st.Entering
	return dirs, nil
}
