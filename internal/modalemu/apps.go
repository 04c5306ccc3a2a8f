package modalemu

import (
	"context"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// owner is who everything here belongs to.
const owner = "modalemu"

// AppGetOrCreate implements the service.
func (s *Server) AppGetOrCreate(_ context.Context, req *pb.AppGetOrCreateRequest) (*pb.AppGetOrCreateResponse, error) {
	var app *appRecord
	err := s.store.change(func(r *records) error {
		if app = r.app(req.GetAppName(), req.GetEnvironmentName()); app != nil {
			if req.GetObjectCreationType() == pb.ObjectCreationType_OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS {
				return status.Errorf(codes.AlreadyExists, "App '%s' already exists", req.GetAppName())
			}
			return nil
		}
		if req.GetObjectCreationType() == pb.ObjectCreationType_OBJECT_CREATION_TYPE_UNSPECIFIED {
			return status.Errorf(codes.NotFound, "App '%s' not found in environment '%s'", req.GetAppName(), environmentName(req.GetEnvironmentName()))
		}
		if err := checkName("App", req.GetAppName()); err != nil {
			return err
		}
		env := r.environment(req.GetEnvironmentName())
		app = &appRecord{ID: newID("ap"), Name: req.GetAppName(), Environment: env.Name, Created: time.Now()}
		r.Apps[app.ID] = app
		return nil
	})
	if err != nil {
		return nil, err
	}
	return pb.AppGetOrCreateResponse_builder{AppId: app.ID, HandleMetadata: app.metadata()}.Build(), nil
}

// app finds an app by its name, or nil.
func (r *records) app(name, environment string) *appRecord {
	for _, app := range r.Apps {
		if app.Name == name && app.Environment == environmentName(environment) {
			return app
		}
	}
	return nil
}

func (a *appRecord) metadata() *pb.AppHandleMetadata {
	return pb.AppHandleMetadata_builder{
		Description: a.Name, AppId: a.ID, EnvironmentName: a.Environment,
		Lifecycle: pb.AppLifecycle_builder{
			AppState:  pb.AppState_APP_STATE_DEPLOYED,
			CreatedAt: seconds(a.Created), CreatedBy: owner,
			DeployedAt: seconds(a.Created), DeployedBy: owner, Version: 1,
		}.Build(),
	}.Build()
}

// AppGetInfo implements the service.
func (s *Server) AppGetInfo(_ context.Context, req *pb.AppGetInfoRequest) (*pb.AppGetInfoResponse, error) {
	app, err := s.app(req.GetAppId())
	if err != nil {
		return nil, err
	}
	return pb.AppGetInfoResponse_builder{Info: app.metadata()}.Build(), nil
}

// app finds an app by its id.
func (s *Server) app(id string) (app *appRecord, err error) {
	s.store.read(func(r *records) { app = r.Apps[id] })
	if app == nil {
		return nil, status.Errorf(codes.NotFound, "App '%s' not found", id)
	}
	return app, nil
}

// AppList implements the service.
func (s *Server) AppList(_ context.Context, req *pb.AppListRequest) (*pb.AppListResponse, error) {
	var items []*pb.AppListResponse_AppListItem
	s.store.read(func(r *records) {
		for _, id := range names(r.Apps) {
			app := r.Apps[id]
			if app.Environment != environmentName(req.GetEnvironmentName()) {
				continue
			}
			items = append(items, pb.AppListResponse_AppListItem_builder{
				AppId: app.ID, Name: app.Name, Description: app.Name,
				State: pb.AppState_APP_STATE_DEPLOYED, CreatedAt: seconds(app.Created),
				NRunningTasks: int32(s.boxes.runningIn(app.ID)), Metadata: app.metadata(),
			}.Build())
		}
	})
	return pb.AppListResponse_builder{Apps: items}.Build(), nil
}

// EnvironmentDelete implements the service: it deletes what is in it too, and
// ends its sandboxes.
func (s *Server) EnvironmentDelete(ctx context.Context, req *pb.EnvironmentDeleteRequest) (*emptypb.Empty, error) {
	var apps, volumes []string
	err := s.store.change(func(r *records) (err error) {
		apps, volumes, err = r.deleteEnvironment(req.GetName())
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, app := range apps {
		if err := s.boxes.terminateIn(ctx, app); err != nil {
			return nil, err
		}
	}
	for _, id := range volumes {
		if err := s.volumes.remove(id); err != nil {
			return nil, err
		}
	}
	return &emptypb.Empty{}, nil
}

// deleteEnvironment gives the apps and volumes that were in it.
func (r *records) deleteEnvironment(name string) (apps, volumes []string, err error) {
	if name == mainEnvironment {
		return nil, nil, status.Errorf(codes.FailedPrecondition, "Environment '%s' is the default and cannot be deleted", name)
	}
	if r.Environments[name] == nil {
		return nil, nil, status.Errorf(codes.NotFound, "Environment '%s' not found", name)
	}
	delete(r.Environments, name)
	for id, app := range r.Apps {
		if app.Environment == name {
			apps = append(apps, id)
			delete(r.Apps, id)
		}
	}
	for id, secret := range r.Secrets {
		if secret.Environment == name {
			delete(r.Secrets, id)
		}
	}
	for id, vol := range r.Volumes {
		if vol.Environment == name {
			volumes = append(volumes, id)
			delete(r.Volumes, id)
		}
	}
	return apps, volumes, nil
}
