package sandboxtest_test

import (
	"errors"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/sandboxtest"
)

func TestNew(t *testing.T) {
	var sb *sandbox.Sandbox
	t.Run("a test with a sandbox", func(t *testing.T) {
		sb = sandboxtest.New(t, &sandboxtest.NewOptions{
			Config: sandbox.Config{Env: map[string]string{"GREETING": "hello"}}, AllowUnisolated: true,
		})
		out, err := sb.Command(t.Context(), "sh", "-c", `echo "$GREETING"`).Output()
		if err != nil || string(out) != "hello\n" {
			t.Errorf("got %q, %v", out, err)
		}
	})
	if err := sb.Command(t.Context(), "true").Run(); err == nil {
		t.Error("the sandbox goes on after its test")
	}
}

func TestNewProviderEndsWhatIsLeft(t *testing.T) {
	var sb *sandbox.Sandbox
	t.Run("a test that leaves a sandbox", func(t *testing.T) {
		p := sandboxtest.NewProvider(t, &sandboxtest.NewOptions{AllowUnisolated: true})
		var err error
		if sb, err = p.Create(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	})
	_, err := sb.Wait(t.Context())
	if err != nil && !errors.Is(err, sandbox.ErrEnded) && !errors.Is(err, sandbox.ErrNotFound) {
		t.Errorf("wait: %v", err)
	}
	if err := sb.Close(); err != nil {
		t.Error(err)
	}
}
