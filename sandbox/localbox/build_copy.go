//go:build linux

package localbox

import (
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/ociimage"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/ociimage/dockerfile"
)

// doCopy copies from another image, or writes what the command itself holds.
func (b *builder) doCopy(ctx context.Context, c *dockerfile.Command) error {
	words, err := c.Words(b.lookup)
	if err != nil {
		return fmt.Errorf("%w: %w", driver.ErrInvalid, err)
	}
	if len(words) < 2 {
		return fmt.Errorf("%w: %s: it needs a source and a destination", driver.ErrInvalid, c)
	}
	last := len(words) - 1
	cp := &ociimage.Copy{Sources: words[:last], Dest: words[last], Mode: -1}
	if !path.IsAbs(cp.Dest) {
		slash := strings.HasSuffix(cp.Dest, "/") || cp.Dest == "."
		if cp.Dest = path.Join("/", b.cur.config.Dir, cp.Dest); slash {
			cp.Dest += "/"
		}
	}
	if err := b.flush(ctx); err != nil {
		return err
	}
	from, err := b.copyFrom(ctx, c, cp)
	if err != nil {
		return err
	}
	cp.On = ociimage.NewView(b.store.Root(b.cur.rec))
	if err := b.copyFlags(c, cp); err != nil {
		return err
	}
	parts := slices.Concat([]string{"copy", from, cp.Dest, fmt.Sprint(cp.UID, cp.GID, cp.Mode)}, cp.Sources)
	for _, t := range cp.Texts {
		parts = append(parts, "text", t.Name, t.Body)
	}
	return b.step(ctx, c.String(), parts, func(string) (*ociimage.Record, error) {
		return b.addLayer(ctx, func(w io.Writer) error { return cp.WriteTar(w) })
	})
}

// copyFrom finds the image to copy from, and tells which it is; "" is none.
func (b *builder) copyFrom(ctx context.Context, c *dockerfile.Command, cp *ociimage.Copy) (string, error) {
	from, ok := c.Flag("from")
	if !ok {
		return "", b.copyTexts(c, cp)
	}
	from, err := c.Expand(from, b.lookup)
	if err != nil {
		return "", fmt.Errorf("%w: %w", driver.ErrInvalid, err)
	}
	var rec *ociimage.Record
	if s := b.stageNamed(from); s != nil {
		rec = s.rec
	} else if n, err := strconv.Atoi(from); err == nil && n >= 0 && n < len(b.stages)-1 {
		rec = b.stages[n].rec
	} else if rec, err = b.image(ctx, from); err != nil {
		return "", fmt.Errorf("%s: %w", c, err)
	}
	cp.From = ociimage.NewSource(b.store.Root(rec))
	return rec.ID, nil
}

// copyTexts takes what is to be written from the command's own lines.
func (b *builder) copyTexts(c *dockerfile.Command, cp *ociimage.Copy) error {
	if len(c.Heredocs) == 0 || len(c.Heredocs) != len(cp.Sources) {
		return &driver.UnsupportedError{Setting: "Image.Commands", Reason: "COPY needs a build context, and there is none; " +
			"use COPY --from=image, COPY <<NAME, Config.Mounts, or write the files with Sandbox.FS"}
	}
	for _, h := range c.Heredocs {
		text := h.Text
		if !h.Quoted {
			var err error
			if text, err = c.ExpandText(text, b.lookup); err != nil {
				return fmt.Errorf("%w: %w", driver.ErrInvalid, err)
			}
		}
		cp.Texts = append(cp.Texts, ociimage.Text{Name: h.Name, Body: text})
	}
	cp.Sources = nil
	return nil
}

func (b *builder) copyFlags(c *dockerfile.Command, cp *ociimage.Copy) error {
	if owner, ok := c.Flag("chown"); ok {
		owner, err := c.Expand(owner, b.lookup)
		if err == nil {
			cp.UID, cp.GID, err = cp.On.Owner(owner)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c, err)
		}
	}
	if mode, ok := c.Flag("chmod"); ok {
		n, err := strconv.ParseUint(mode, 8, 12)
		if err != nil {
			return fmt.Errorf("%w: %s: use an octal mode such as --chmod=755", driver.ErrInvalid, c)
		}
		cp.Mode = int64(n)
	}
	return nil
}
