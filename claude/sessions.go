package claude

import (
	"context"
)

func (c *Client) newestSession(ctx context.Context) (string, error) { return "", ErrUnknownConversation }
