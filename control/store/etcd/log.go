package etcd

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// quiet carries etcd's log into ours: its warnings are our debug lines, its errors our warnings, and the rest,
// which is written for operators of etcd clusters, is not kept.
func quiet(log *slog.Logger) *zap.Logger {
	if log == nil {
		return zap.NewNop()
	}
	// OnFatal panics instead of ending the process behind our back.
	return zap.New(&core{log: log.With("component", "etcd")}, zap.WithFatalHook(zapcore.WriteThenPanic))
}

type core struct{ log *slog.Logger }

func level(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.DPanicLevel:
		return slog.LevelError
	case l == zapcore.ErrorLevel:
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

func (c *core) Enabled(l zapcore.Level) bool {
	return l >= zapcore.WarnLevel && c.log.Enabled(context.Background(), level(l))
}

func (c *core) With(fields []zapcore.Field) zapcore.Core {
	return &core{log: c.log.With(attributes(fields)...)}
}

func (c *core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// usual is what a new store says a few seconds after its first start; it tries again and succeeds.
const usual = "failed to update storage version"

func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	l := level(e.Level)
	if e.Message == usual {
		l = slog.LevelDebug
	}
	c.log.Log(context.Background(), l, e.Message, attributes(fields)...)
	return nil
}

func (c *core) Sync() error { return nil }

func attributes(fields []zapcore.Field) []any {
	enc := zapcore.NewMapObjectEncoder()
	var list []any
	for _, f := range fields {
		f.AddTo(enc)
		if v, ok := enc.Fields[f.Key]; ok {
			list = append(list, slog.Any(f.Key, v))
		}
	}
	return list
}
