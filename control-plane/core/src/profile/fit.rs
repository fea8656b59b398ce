//! Fits what each feature costs to what was measured: least squares of the relative error, no cost below zero, and
//! measurements that nothing explains count less (Huber weights).
//!
//! Every network and every fifth operation is kept from the fit; on them the error is stated.

use super::Row;
use shared::{
    board::RuntimeName,
    latency::{Feature, Features, LatencyModel, PredictionError},
    profile::Form,
};
use std::collections::BTreeMap;

const FEATURES: usize = Feature::ALL.len();
/// One operation in so many is held out; no measure of the order in which they come.
const HELD_OUT_EVERY: usize = 5;
/// Which of them.
const HELD_OUT: usize = 2;
/// Relative error from which on a measurement counts less.
const HUBER: f64 = 0.15;
/// Rounds of weighting anew.
const ROUNDS: usize = 8;
/// Most sweeps over the features in one round.
const SWEEPS_MAX: usize = 20_000;
/// A sweep that changes no cost by more than this share of the largest is the last.
const TOLERANCE: f64 = 1e-9;
const FS_PER_US: f64 = 1e9;

/// A measured row: its place, its features, its microseconds.
struct Point {
    row: usize,
    features: Features,
    us: f64,
}

/// The model of each runtime and form that was measured; writes its predictions into the rows.
pub(super) fn models(rows: &mut [Row]) -> Vec<LatencyModel> {
    let mut groups: BTreeMap<(RuntimeName, Form, u8), Vec<Point>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        let Some(us) = row.us.filter(|us| *us > 0.0) else { continue };
        let Ok(features) = row.workload.features() else { continue };
        let spatial_axes = u8::try_from(row.workload.input.len().saturating_sub(1)).unwrap_or(u8::MAX);
        let group = groups.entry((row.runtime, row.form, spatial_axes)).or_default();
        group.push(Point { row: index, features, us });
    }
    let mut models = Vec::with_capacity(groups.len());
    for ((runtime, form, spatial_axes), points) in groups {
        let (networks, operations): (Vec<_>, Vec<_>) =
            points.iter().partition(|point| rows.get(point.row).is_some_and(|row| row.workload.is_network()));
        let (held_out, fitted): (Vec<_>, Vec<_>) =
            operations.into_iter().enumerate().partition(|(index, _)| index % HELD_OUT_EVERY == HELD_OUT);
        let second = |list: Vec<(usize, _)>| list.into_iter().map(|(_, point)| point).collect::<Vec<_>>();
        let (held_out, fitted) = (second(held_out), second(fitted));
        let cost_fs = Feature::ALL
            .into_iter()
            .zip(costs_us(&fitted))
            .filter(|(_, us)| *us > 0.0)
            .map(|(feature, us)| (feature, (us * FS_PER_US).round() as u64))
            .collect();
        let none = PredictionError::default();
        let mut model = LatencyModel {
            runtime,
            form,
            spatial_axes,
            cost_fs,
            points: u32::try_from(fitted.len()).unwrap_or(u32::MAX),
            operations: none,
            networks: none,
        };
        model.operations = error(&model, &held_out);
        model.networks = error(&model, &networks);
        for point in &points {
            if let Some(row) = rows.get_mut(point.row) {
                row.predicted_us = Some(model.predict_us(&point.features));
            }
        }
        for point in held_out.into_iter().chain(networks) {
            if let Some(row) = rows.get_mut(point.row) {
                row.held_out = true;
            }
        }
        models.push(model);
    }
    models
}

fn error(model: &LatencyModel, points: &[&Point]) -> PredictionError {
    let mut off: Vec<f64> =
        points.iter().map(|point| (model.predict_us(&point.features) / point.us - 1.0).abs()).collect();
    off.sort_by(f64::total_cmp);
    let permille = |share: Option<&f64>| share.map_or(0, |share| (share * 1000.0).round() as u32);
    PredictionError {
        points: u32::try_from(off.len()).unwrap_or(u32::MAX),
        median_permille: permille(off.get(off.len() / 2)),
        worst_permille: permille(off.last()),
    }
}

/// Microseconds of one of each feature.
fn costs_us(points: &[&Point]) -> [f64; FEATURES] {
    // A row says how many of each feature make up the whole time, so that the residual is the relative error.
    let rows: Vec<[f64; FEATURES]> =
        points.iter().map(|point| point.features.counts().map(|count| count as f64 / point.us)).collect();
    let mut weights = vec![1.0; rows.len()];
    let mut costs = [0.0; FEATURES];
    for _ in 0..ROUNDS {
        costs = non_negative(&rows, &weights);
        for (weight, row) in weights.iter_mut().zip(&rows) {
            let off = (row.iter().zip(&costs).map(|(a, x)| a * x).sum::<f64>() - 1.0).abs();
            *weight = if off <= HUBER { 1.0 } else { HUBER / off };
        }
    }
    costs
}

/// The costs of at least zero that bring the weighted rows closest to one, by coordinate descent on the normal equations
/// of columns of length one.
fn non_negative(rows: &[[f64; FEATURES]], weights: &[f64]) -> [f64; FEATURES] {
    let weighted = |value: &dyn Fn(&[f64; FEATURES]) -> f64| -> f64 {
        rows.iter().zip(weights).map(|(row, weight)| weight * value(row)).sum()
    };
    let gram: [[f64; FEATURES]; FEATURES] =
        std::array::from_fn(|i| std::array::from_fn(|j| weighted(&|row| row[i] * row[j])));
    let right: [f64; FEATURES] = std::array::from_fn(|i| weighted(&|row| row[i]));
    let length: [f64; FEATURES] = std::array::from_fn(|i| gram[i][i].sqrt());
    let mut scaled = [0.0; FEATURES];
    for _ in 0..SWEEPS_MAX {
        let mut changed = 0.0f64;
        for (i, products) in gram.iter().enumerate() {
            if length[i] == 0.0 {
                continue;
            }
            let others: f64 = (0..FEATURES)
                .filter(|j| *j != i && length[*j] > 0.0)
                .map(|j| products[j] / (length[i] * length[j]) * scaled[j])
                .sum();
            let best = (right[i] / length[i] - others).max(0.0);
            changed = changed.max((best - scaled[i]).abs());
            scaled[i] = best;
        }
        let largest = scaled.iter().copied().fold(0.0, f64::max);
        if changed <= TOLERANCE * largest {
            break;
        }
    }
    std::array::from_fn(|i| if length[i] > 0.0 { scaled[i] / length[i] } else { 0.0 })
}
