// Package metrics tells Prometheus of a director, under the names that the ipvs
// collector of node_exporter has made customary: what is node_ipvs_... there is
// fairlead_... here, with the same labels, and more besides.
package metrics
