// The textbook operator: the manager that kubebuilder scaffolds around one controller. Flags, wiring, nothing else.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"security-group-operator.io/benches/textbook/api"
	"security-group-operator.io/benches/textbook/controller"
	"security-group-operator.io/benches/textbook/ecs"
)

func main() {
	probe := flag.String("health-probe-bind-address", ":8081", "address of /readyz")
	endpoint := flag.String("ecs-endpoint", "", "URL of the ECS API")
	workers := flag.Int("max-concurrent-reconciles", 1, "as in controller.Options")
	period := flag.Duration("period", 10*time.Minute, "RequeueAfter of a finished object")
	sets := flag.Bool("sets", false, "reconcile SecurityGroupMembershipSets, too")
	keys := map[string][2]string{}
	flag.Func("access-key", "ACCOUNT=ID:SECRET, repeatable", func(text string) error {
		account, key, ok := strings.Cut(text, "=")
		id, secret, ok2 := strings.Cut(key, ":")
		if !ok || !ok2 {
			return fmt.Errorf("want ACCOUNT=ID:SECRET")
		}
		keys[account] = [2]string{id, secret}
		return nil
	})
	options := zap.Options{}
	options.BindFlags(flag.CommandLine)
	flag.Parse()
	ctrl.SetLogger(zap.New(zap.UseFlagOptions(&options)))
	if err := run(*probe, *endpoint, *workers, *period, *sets, keys); err != nil {
		ctrl.Log.Error(err, "the manager ended")
		os.Exit(1)
	}
}

func run(probe, endpoint string, workers int, period time.Duration, sets bool, keys map[string][2]string) error {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(api.SchemeBuilder.AddToScheme(scheme))
	// GetConfigOrDie leaves the client's own rate limit off (QPS -1), as it is for whoever scaffolds today.
	mgr, err := ctrl.NewManager(ctrl.GetConfigOrDie(), ctrl.Options{
		Scheme:                 scheme,
		HealthProbeBindAddress: probe,
		Metrics:                metricsserver.Options{BindAddress: "0"},
	})
	if err != nil {
		return err
	}
	accounts := map[string]*ecs.Client{}
	for name, key := range keys {
		accounts[name] = ecs.New(endpoint, key[0], key[1])
	}
	reconciler := &controller.Reconciler{Client: mgr.GetClient(), Accounts: accounts, Period: period}
	if err := reconciler.SetupWithManager(mgr, workers); err != nil {
		return err
	}
	if sets {
		reconciler := &controller.SetReconciler{Client: mgr.GetClient()}
		if err := reconciler.SetupWithManager(mgr, workers); err != nil {
			return err
		}
	}
	if err := mgr.AddHealthzCheck("healthz", healthz.Ping); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("readyz", healthz.Ping); err != nil {
		return err
	}
	return mgr.Start(ctrl.SetupSignalHandler())
}
