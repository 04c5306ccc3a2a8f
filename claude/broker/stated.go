package broker

import (
	"encoding/json"
)

// statement is what an answer says about its usage so far.
type statement struct {
	model string
	usage Usage
	rates rates
	final bool // it will say no more
}

// apiUsage is a usage object of the API; absent members are nil. A stream states
// some at its start and all that changed at its end.
type apiUsage struct {
	Input      *count `json:"input_tokens"`
	Output     *count `json:"output_tokens"`
	CacheRead  *count `json:"cache_read_input_tokens"`
	CacheWrite *count `json:"cache_creation_input_tokens"`
	Writes     *struct {
		FiveMinutes count `json:"ephemeral_5m_input_tokens"`
		OneHour     count `json:"ephemeral_1h_input_tokens"`
	} `json:"cache_creation"`
	Server *struct {
		WebSearches count `json:"web_search_requests"`
	} `json:"server_tool_use"`
	Speed *string `json:"speed"`
	Geo   *string `json:"inference_geo"`
}

// maxCount is more than any request can use, and little enough for sums.
const maxCount = 1_000_000_000

// count is a number of tokens; what cannot be one is none, or as many as can be.
type count int64

func (c *count) UnmarshalJSON(data []byte) error {
	var n float64
	if err := json.Unmarshal(data, &n); err != nil {
		return err
	}
	*c = count(min(max(n, 0), maxCount))
	return nil
}

// add takes what a usage object states into the statement.
func (s *statement) add(u *apiUsage) {
	for member, to := range map[*count]*int64{u.Input: &s.usage.Input, u.Output: &s.usage.Output, u.CacheRead: &s.usage.CacheRead} {
		if member != nil {
			*to = int64(*member)
		}
	}
	if u.CacheWrite != nil {
		s.usage.CacheWrite5m, s.usage.CacheWrite1h = int64(*u.CacheWrite), 0
	}
	if u.Writes != nil {
		total := int64(u.Writes.FiveMinutes + u.Writes.OneHour)
		if u.CacheWrite != nil {
			total = max(total, int64(*u.CacheWrite))
		}
		s.usage.CacheWrite1h = int64(u.Writes.OneHour)
		s.usage.CacheWrite5m = total - s.usage.CacheWrite1h
	}
	if u.Server != nil {
		s.usage.WebSearches = int64(u.Server.WebSearches)
	}
	if u.Speed != nil {
		s.rates.fast = *u.Speed == "fast"
	}
	if u.Geo != nil {
		s.rates.us = *u.Geo == "us"
	}
}
