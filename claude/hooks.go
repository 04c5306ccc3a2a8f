package claude

// HookEvent is what a hook is called for.
type HookEvent string
