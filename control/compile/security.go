package compile

import "github.com/tulle-mesh/tulle/model"

// Security answers what the proxies of a service's workloads enforce.
func (c Compiler) Security(name model.ServiceName) (*model.Security, bool) {
	if _, ok := c.Services.Service(name); !ok {
		return nil, false
	}
	return &model.Security{Name: name}, true
}
