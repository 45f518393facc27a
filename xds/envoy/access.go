package envoy

//lint:file-ignore SA1019 what Envoy has deprecated and files still use is read as well

import (
	"sort"

	accessv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/logformat"
)

func accessLogs(path string, list []*accessv3.AccessLog) ([]model.AccessLog, error) {
	var out []model.AccessLog
	for i, a := range list {
		l, err := accessLog(at(path, i), a)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

func accessLog(path string, a *accessv3.AccessLog) (l model.AccessLog, err error) {
	path = join(path, "typed_config")
	var format *corev3.SubstitutionFormatString
	switch c := a.GetTypedConfig(); {
	case is(c, &filev3.FileAccessLog{}):
		var m filev3.FileAccessLog
		if err := unpack(path, c, &m); err != nil {
			return l, err
		}
		if l.Path = m.GetPath(); l.Path == "" {
			return l, refuse(join(path, "path"), "is missing")
		}
		switch f := m.GetAccessLogFormat().(type) {
		case *filev3.FileAccessLog_LogFormat:
			format = f.LogFormat
		case *filev3.FileAccessLog_Format:
			l.Format = f.Format
		case *filev3.FileAccessLog_JsonFormat:
			l.JSON, err = jsonFields(join(path, "json_format"), f.JsonFormat)
		case *filev3.FileAccessLog_TypedJsonFormat:
			l.JSON, err = jsonFields(join(path, "typed_json_format"), f.TypedJsonFormat)
		}
	case is(c, &streamv3.StdoutAccessLog{}):
		var m streamv3.StdoutAccessLog
		if err := unpack(path, c, &m); err != nil {
			return l, err
		}
		l.Path, format = "/dev/stdout", m.GetLogFormat()
	case is(c, &streamv3.StderrAccessLog{}):
		var m streamv3.StderrAccessLog
		if err := unpack(path, c, &m); err != nil {
			return l, err
		}
		l.Path, format = "/dev/stderr", m.GetLogFormat()
	default:
		return l, foreign(path, c)
	}
	if err == nil && format != nil {
		err = substitution(join(path, "log_format"), format, &l)
	}
	if err == nil {
		if e := logformat.Check(&l); e != nil {
			err = refuse(path, "%s", clip(e.Error()))
		}
	}
	return l, err
}

func substitution(path string, m *corev3.SubstitutionFormatString, l *model.AccessLog) (err error) {
	l.OmitEmpty = m.GetOmitEmptyValues()
	switch f := m.GetFormat().(type) {
	case *corev3.SubstitutionFormatString_TextFormat:
		l.Format = f.TextFormat
	case *corev3.SubstitutionFormatString_TextFormatSource:
		d, ok := f.TextFormatSource.GetSpecifier().(*corev3.DataSource_InlineString)
		if !ok {
			return refuse(join(path, "text_format_source"), "is not an inline_string")
		}
		l.Format = d.InlineString
	case *corev3.SubstitutionFormatString_JsonFormat:
		l.JSON, err = jsonFields(join(path, "json_format"), f.JsonFormat)
	}
	return err
}

// jsonFields reads an object of formats. Its members are in the order of their names, as Envoy writes them.
func jsonFields(path string, s *structpb.Struct) ([]model.LogField, error) {
	out := []model.LogField{}
	for name, v := range s.GetFields() {
		f := model.LogField{Name: name}
		switch k := v.GetKind().(type) {
		case *structpb.Value_StringValue:
			f.Format = k.StringValue
		case *structpb.Value_StructValue:
			var err error
			if f.Members, err = jsonFields(join(path, name), k.StructValue); err != nil {
				return nil, err
			}
		default:
			return nil, refuse(join(path, name), "is neither a format nor an object of formats")
		}
		out = append(out, f)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}
