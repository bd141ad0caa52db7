package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// trouble is everything that is to go wrong, and what has been asked so far.
type trouble struct {
	calls    map[string]int
	events   []*event
	revoked  map[string]bool // privileges
	sessions map[string]bool // key -> still valid
	held     map[ref]*heldTask
}

// event is one thing that goes wrong: a call that is refused or dropped, or a task that fails or is slow.
type event struct {
	Method  string
	Mode    string // refuse, drop, fail (not done), fail_after (done, and then reported as failed), slow
	Fault   string // a vSphere fault's type
	Times   int    // how often; 0 is always
	Skip    int    // calls that still succeed before
	Polls   int    // slow: reads of the task before it is done
	Quiesce bool   // only a CreateSnapshot_Task that quiesces
	File    string // what a file's fault names
}

type heldTask struct {
	task         *simulator.Task
	polls, reads int
	run          func() *simulator.Task
}

func newTrouble() *trouble {
	t := &trouble{
		calls: map[string]int{}, revoked: map[string]bool{}, sessions: map[string]bool{}, held: map[ref]*heldTask{},
	}
	reading = t.advance
	return t
}

// needed is the privilege that each method checks, of those that the tests refuse.
var needed = map[string]string{
	"CreateSnapshot_Task":   "VirtualMachine.State.CreateSnapshot",
	"RemoveSnapshot_Task":   "VirtualMachine.State.RemoveSnapshot",
	"ReconfigVM_Task":       "VirtualMachine.Config.ChangeTracking",
	"QueryChangedDiskAreas": "VirtualMachine.Provisioning.DiskRandomRead",
}

var open = map[string]bool{
	"RetrieveServiceContent": true, "Login": true, "Logout": true,
}

// refusal is why this caller may not do this, or nil.
func (t *trouble) refusal(r *http.Request, method *simulator.Method) types.BaseMethodFault {
	key := sessionOf(r)
	valid, known := t.sessions[key]
	if known && !valid { // the simulator still knows it
		r.Header.Del("Cookie")
	}
	if !open[method.Name] && !valid && (known || method.Name != "RetrievePropertiesEx") {
		return &types.NotAuthenticated{NoPermission: types.NoPermission{Object: method.This, PrivilegeId: "System.View"}}
	}
	if privilege := needed[method.Name]; t.revoked[privilege] {
		return &types.NoPermission{Object: method.This, PrivilegeId: privilege}
	}
	return nil
}

func (t *trouble) watchSession(method *simulator.Method, r *http.Request, answer *httptest.ResponseRecorder) {
	switch method.Name {
	case "Login":
		for _, cookie := range answer.Result().Cookies() {
			t.sessions[cookie.Value] = true
		}
	case "Logout":
		delete(t.sessions, sessionOf(r))
	}
}

func (t *trouble) take(method *simulator.Method) *event {
	for i, e := range t.events {
		if e.Method != method.Name {
			continue
		}
		if request, ok := method.Body.(*types.CreateSnapshot_Task); ok && e.Quiesce && !request.Quiesce {
			continue
		}
		if e.Skip > 0 {
			e.Skip--
			continue
		}
		if e.Times == 1 {
			t.events = append(t.events[:i:i], t.events[i+1:]...)
		} else if e.Times > 1 {
			e.Times--
		}
		return e
	}
	return nil
}

func (e *event) fault(method *simulator.Method) types.BaseMethodFault {
	kind, known := types.TypeFunc()(e.Fault)
	if !known {
		kind = reflect.TypeOf(types.RuntimeFault{})
	}
	value := reflect.New(kind)
	for name, content := range map[string]interface{}{
		"File": e.File, "PrivilegeId": needed[method.Name], "Object": method.This, "Obj": method.This,
		"Task": ref{Type: "Task", Value: "task-0"}, "Datastore": method.This,
	} {
		if field := value.Elem().FieldByName(name); field.IsValid() && field.Type() == reflect.TypeOf(content) {
			field.Set(reflect.ValueOf(content))
		}
	}
	return value.Interface().(types.BaseMethodFault)
}

func newTask(method *simulator.Method) *simulator.Task {
	entity := method.This
	if snapshot, ok := simulator.Map.Get(entity).(*simulator.VirtualMachineSnapshot); ok {
		entity = snapshot.Vm
	}
	return simulator.CreateTask(entity, method.Name, nil)
}

func failedTask(method *simulator.Method, fault types.BaseMethodFault) *simulator.Task {
	task := newTask(method)
	spoil(task, fault)
	return task
}

func spoil(task *simulator.Task, fault types.BaseMethodFault) {
	task.Info.State, task.Info.Result = types.TaskInfoStateError, nil
	task.Info.Error = &types.LocalizedMethodFault{
		Fault: fault, LocalizedMessage: "simulated: " + reflect.TypeOf(fault).Elem().Name(),
	}
}

// hold makes a task that runs only when it has been read often enough, and that can be cancelled until then.
func (t *trouble) hold(method *simulator.Method, polls int, run func() *simulator.Task) *simulator.Task {
	task := newTask(method)
	task.Info.State, task.Info.Cancelable = types.TaskInfoStateRunning, true
	t.held[task.Self] = &heldTask{task: task, polls: polls, run: run}
	return task
}

func (t *trouble) advance(task ref) {
	held, ok := t.held[task]
	if !ok {
		return
	}
	held.reads++
	if held.reads < held.polls {
		held.task.Info.Progress = int32(100 * held.reads / held.polls)
		return
	}
	delete(t.held, task)
	if done := held.run(); done != nil {
		held.task.Info.State, held.task.Info.Progress = done.Info.State, 100
		held.task.Info.Result, held.task.Info.Error = done.Info.Result, done.Info.Error
	}
}

func (t *trouble) cancel(task ref) {
	if held, ok := t.held[task]; ok {
		delete(t.held, task)
		spoil(held.task, &types.RequestCanceled{})
	}
}

func (t *trouble) privileges(request *types.HasPrivilegeOnEntities) []types.EntityPrivilege {
	var out []types.EntityPrivilege
	for _, entity := range request.Entity {
		answer := types.EntityPrivilege{Entity: entity}
		for _, id := range request.PrivId {
			answer.PrivAvailability = append(answer.PrivAvailability, types.PrivilegeAvailability{
				PrivId: id, IsGranted: !t.revoked[id],
			})
		}
		out = append(out, answer)
	}
	return out
}

// controls is the tests' own interface, in plain HTTP: JSON in, JSON out.
func (d *frontDoor) controls() http.Handler {
	machine := regexp.MustCompile(`^/vms/(.+)/(cbt-reset|needs-consolidation)$`)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		defer d.mu.Unlock()
		t := d.trouble
		var answer interface{} = map[string]int{}
		switch found := machine.FindStringSubmatch(r.URL.Path); {
		case r.URL.Path == "/reset":
			fresh := newTrouble()
			fresh.sessions = t.sessions
			d.trouble = fresh
		case r.URL.Path == "/calls":
			answer = t.calls
		case r.URL.Path == "/sessions":
			answer = valid(t.sessions)
		case r.URL.Path == "/expire":
			for key := range t.sessions {
				t.sessions[key] = false
			}
		case r.URL.Path == "/events":
			e := new(event)
			if err := json.NewDecoder(r.Body).Decode(e); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			t.events = append(t.events, e)
		case r.URL.Path == "/revoke":
			var ids []string
			_ = json.NewDecoder(r.Body).Decode(&ids)
			for _, id := range ids {
				t.revoked[id] = true
			}
		case found != nil:
			vm, ok := simulator.Map.Get(ref{Type: "VirtualMachine", Value: found[1]}).(*simulator.VirtualMachine)
			if !ok {
				http.NotFound(w, r)
			} else if found[2] == "cbt-reset" {
				d.disks.resetTracking(vm)
			} else {
				vm.Runtime.ConsolidationNeeded = types.NewBool(true)
			}
		default:
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(answer)
	})
}

func valid(sessions map[string]bool) int {
	n := 0
	for _, ok := range sessions {
		if ok {
			n++
		}
	}
	return n
}
