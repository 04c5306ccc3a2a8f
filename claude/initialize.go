package claude

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// initializeRequest sets a conversation up: SDKControlInitializeRequest in
// sdk.d.ts. What it has is not seen by other processes of the sandbox, as
// arguments are.
type initializeRequest struct {
	Hooks                  map[HookEvent][]hookMatcher `json:"hooks,omitempty"`
	SDKMCPServers          []string                    `json:"sdkMcpServers,omitempty"`
	SDKMCPServerConfigs    map[string]mcpConfig        `json:"sdkMcpServerConfigs,omitempty"`
	MCPServers             map[string]mcpConfig        `json:"mcpServers,omitempty"`
	JSONSchema             any                         `json:"jsonSchema,omitempty"`
	SystemPrompt           []string                    `json:"systemPrompt,omitempty"`
	AppendSystemPrompt     string                      `json:"appendSystemPrompt,omitempty"`
	SystemPromptSnapshot   *bool                       `json:"systemPromptSnapshot,omitempty"`
	PlanModeInstructions   string                      `json:"planModeInstructions,omitempty"`
	ToolAliases            map[string]string           `json:"toolAliases,omitempty"`
	ExcludeDynamicSections bool                        `json:"excludeDynamicSections,omitempty"`
	Agents                 map[string]Agent            `json:"agents,omitempty"`
	Title                  string                      `json:"title,omitempty"`
	Skills                 []string                    `json:"skills,omitempty"`
	PromptSuggestions      bool                        `json:"promptSuggestions,omitempty"`
	AgentProgressSummaries bool                        `json:"agentProgressSummaries,omitempty"`
	ForwardSubagentText    bool                        `json:"forwardSubagentText,omitempty"`
	SupportedDialogKinds   []string                    `json:"supportedDialogKinds,omitempty"`
	PerTaskStopAffordance  bool                        `json:"perTaskStopAffordance,omitempty"`
	Plugins                []pluginConfig              `json:"plugins,omitempty"`
	Settings               any                         `json:"settings,omitempty"`
	ManagedSettings        any                         `json:"managedSettings,omitempty"`
}

type pluginConfig struct {
	Type  string `json:"type"`
	Path  string `json:"path"`
	NoMCP bool   `json:"skipMcpDiscovery,omitempty"`
}

func (p *process) initializeRequest() *initializeRequest {
	o := p.opts
	r := &initializeRequest{
		AppendSystemPrompt: o.AppendSystemPrompt, PlanModeInstructions: o.PlanInstructions, ToolAliases: o.ToolAliases,
		ExcludeDynamicSections: o.ExcludeDynamicSections, Agents: o.Agents, Title: o.Title,
		PromptSuggestions: o.PromptSuggestions, AgentProgressSummaries: o.AgentProgressSummaries,
		ForwardSubagentText: o.ForwardSubagentText, SupportedDialogKinds: o.DialogKinds,
		PerTaskStopAffordance: o.TasksSurviveInterrupt, Settings: o.Settings, ManagedSettings: o.ManagedSettings,
		SDKMCPServers: p.host.inProcess(),
	}
	if o.SystemPrompt != "" {
		r.SystemPrompt = []string{o.SystemPrompt}
	}
	if o.FreshSystemPrompt {
		r.SystemPromptSnapshot = new(bool)
	}
	if o.OutputSchema != nil {
		r.JSONSchema = o.OutputSchema
	}
	if !o.allSkills() {
		r.Skills = o.Skills
	}
	for _, plugin := range o.Plugins {
		r.Plugins = append(r.Plugins, pluginConfig{"local", plugin.Path, plugin.NoMCP})
	}
	r.SDKMCPServerConfigs, r.MCPServers = map[string]mcpConfig{}, map[string]mcpConfig{}
	for name, server := range o.MCPServers {
		if server.InProcess != nil {
			r.SDKMCPServerConfigs[name] = server.config(name)
		} else {
			r.MCPServers[name] = server.config(name)
		}
	}
	r.Hooks = map[HookEvent][]hookMatcher{}
	for event, hooks := range o.Hooks {
		for i, hook := range hooks {
			m := hookMatcher{Matcher: hook.Matcher, IDs: []string{hookID(event, i)}, Timeout: hook.Timeout.Seconds()}
			if hook.Block {
				m.OnFailure = "block"
			}
			r.Hooks[event] = append(r.Hooks[event], m)
		}
	}
	if o.putsOff() {
		r.Hooks[HookPreToolUse] = append(r.Hooks[HookPreToolUse], hookMatcher{
			IDs: []string{deferHook}, Timeout: deferTime.Seconds(), OnFailure: "block",
		})
	}
	return r
}

// ServerInfo is what a CLI says of itself when it starts.
type ServerInfo struct {
	Commands     []SlashCommand  `json:"commands"`
	Agents       []AgentInfo     `json:"agents"`
	Models       []ModelInfo     `json:"models"`
	OutputStyle  string          `json:"output_style"`
	OutputStyles []string        `json:"available_output_styles"`
	Account      json.RawMessage `json:"account"`
	// Raw is the whole answer.
	Raw json.RawMessage `json:"-"`

	HooksApplied      *bool `json:"hooks_applied"`
	PluginsApplied    *bool `json:"plugins_applied"`
	MCPServersApplied *bool `json:"mcp_servers_applied"`
}

// AgentInfo is a subagent that there is.
type AgentInfo struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Model       string `json:"model"`
}

// ModelInfo is a model that there is.
type ModelInfo struct {
	Value         string   `json:"value"` // for Options.Model and Session.SetModel
	ResolvedModel string   `json:"resolvedModel"`
	DisplayName   string   `json:"displayName"`
	Description   string   `json:"description"`
	EffortLevels  []string `json:"supportedEffortLevels"`
}

// errSlowStart tells Options.StartTimeout from a deadline of the caller's.
var errSlowStart = errors.New("no answer")

// initialize is the first request: it sets up the conversation, and its answer
// says that the CLI works.
func (p *process) initialize(ctx context.Context) error {
	limit := p.opts.StartTimeout
	if limit == 0 {
		limit = DefaultStartTimeout
	}
	if limit > 0 {
		late := fmt.Errorf("%w within %v: %w", errSlowStart, limit, context.DeadlineExceeded)
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, limit, late)
		defer stop()
	}
	var raw json.RawMessage
	var err error
	if p.job != nil && p.job.initID != "" { // another process has asked
		err = p.await(ctx, "initialize", p.job.initID, p.job.initialized, &raw)
	} else {
		err = p.request(ctx, "initialize", p.initializeRequest(), &raw)
	}
	if err != nil {
		return err
	}
	p.info.Raw = raw
	if raw != nil {
		lenient(raw, &p.info)
	}
	return p.checkApplied()
}

// checkApplied refuses a CLI that has passed over what it was asked to load.
func (p *process) checkApplied() error {
	for _, what := range []struct {
		name    string
		asked   bool
		applied *bool
	}{
		{"Hooks", len(p.opts.Hooks) > 0, p.info.HooksApplied},
		{"Defer", p.opts.putsOff(), p.info.HooksApplied},
		{"Plugins", len(p.opts.Plugins) > 0, p.info.PluginsApplied},
	} {
		if what.asked && what.applied != nil && !*what.applied {
			return fmt.Errorf("the CLI has not taken Options.%s", what.name)
		}
	}
	return nil
}
