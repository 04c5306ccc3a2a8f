package sandbox

import (
	"strings"
	"testing"
)

// TestReadExit reads the record of an exit as it may be found while it is written: a
// beginning of the new text and the rest of the old, or the other way round, byte by
// byte. It is read whole or not at all.
func TestReadExit(t *testing.T) {
	empty := strings.Repeat(" ", 64)
	for text, want := range map[string]Exit{
		"0 end 0 end\n": {}, "7 end 7 end\n": {Code: 7}, "137 end 137 end\n": {Code: -1, Signal: SIGKILL}, "255 end 255 end\n": {Code: 255},
	} {
		full := text + empty[len(text):]
		exit, err := readExit(full)
		if err != nil || exit == nil || *exit != want {
			t.Errorf("%q: %+v, %v", text, exit, err)
		}
		for i := 1; i < len(text); i++ {
			for _, torn := range []string{empty[:i] + full[i:], full[:i] + empty[i:], full[:i]} {
				if exit, err := readExit(torn); exit != nil || err != nil {
					t.Errorf("%q: %+v, %v", torn, exit, err)
				}
			}
		}
		for i := range len(text) - 1 { // one byte was read before it was written
			torn := full[:i] + " " + full[i+1:]
			if exit, err := readExit(torn); exit != nil && *exit != want || err != nil {
				t.Errorf("%q: %+v, %v", torn, exit, err)
			}
		}
	}
	if _, err := readExit("300 end 300 end\n"); err == nil {
		t.Error("300 was taken for an exit status")
	}
}

func FuzzReadExit(f *testing.F) {
	f.Add("137 end 137 end\n   ")
	f.Add("   37 end 137 end\n")
	f.Fuzz(func(t *testing.T, data string) {
		exit, err := readExit(data)
		if exit != nil && (err != nil || !strings.Contains(data, "\n")) {
			t.Errorf("%q: %+v, %v", data, exit, err)
		}
	})
}
