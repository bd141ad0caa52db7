package main

import (
	"strconv"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// collector answers property requests in pages, as vCenter does; the simulator's own answers all at once.
type collector struct {
	simulator.PropertyCollector

	pending map[string]pages
	last    int
}

type pages struct {
	objects []types.ObjectContent
	size    int
}

// reading is told which tasks a request is about to read.
var reading = func(task ref) {}

func pageProperties(self ref) {
	paged := &collector{}
	paged.Self = self
	simulator.Map.Put(paged)
}

func (c *collector) RetrievePropertiesEx(ctx *simulator.Context, r *types.RetrievePropertiesEx) soap.HasFault {
	for _, spec := range r.SpecSet {
		for _, object := range spec.ObjectSet {
			if object.Obj.Type == "Task" {
				reading(object.Obj)
			}
		}
	}
	answer := c.PropertyCollector.RetrievePropertiesEx(ctx, r)
	body := answer.(*methods.RetrievePropertiesExBody)
	if body.Fault_ == nil && r.Options.MaxObjects > 0 {
		body.Res.Returnval = c.page(pages{body.Res.Returnval.Objects, int(r.Options.MaxObjects)})
	}
	return answer
}

func (c *collector) ContinueRetrievePropertiesEx(r *types.ContinueRetrievePropertiesEx) soap.HasFault {
	rest, known := c.pending[r.Token]
	if !known {
		fault := &types.InvalidArgument{InvalidProperty: "token"}
		return &methods.ContinueRetrievePropertiesExBody{Fault_: simulator.Fault("A specified parameter was not correct: token", fault)}
	}
	delete(c.pending, r.Token)
	return &methods.ContinueRetrievePropertiesExBody{
		Res: &types.ContinueRetrievePropertiesExResponse{Returnval: *c.page(rest)},
	}
}

func (c *collector) CancelRetrievePropertiesEx(r *types.CancelRetrievePropertiesEx) soap.HasFault {
	delete(c.pending, r.Token)
	return &methods.CancelRetrievePropertiesExBody{Res: new(types.CancelRetrievePropertiesExResponse)}
}

func (c *collector) page(p pages) *types.RetrieveResult {
	if len(p.objects) <= p.size {
		return &types.RetrieveResult{Objects: p.objects}
	}
	if c.pending == nil {
		c.pending = map[string]pages{}
	}
	c.last++
	token := strconv.Itoa(c.last)
	c.pending[token] = pages{p.objects[p.size:], p.size}
	return &types.RetrieveResult{Token: token, Objects: p.objects[:p.size]}
}
