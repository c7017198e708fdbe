//! Cost against a parameter: rows that differ in one number alone, as depth.

use std::collections::{BTreeMap, BTreeSet};

use super::{Analysis, Row, RowId};
use crate::results::Role;

/// From so many values on, a line says more than bars.
const LEAST_POINTS: usize = 3;

/// One figure over the values of one parameter.
#[derive(Clone, Debug)]
pub struct Sweep<'a> {
    /// The parameter's name.
    pub parameter: String,
    /// Which figure; the parameter itself is left out.
    pub id: RowId,
    /// The values, rising, and their rows.
    pub points: Vec<(f64, &'a Row)>,
}

/// All sweeps over results. Where several parameters have many values, the lines go along the one with most.
pub fn sweeps(analysis: &Analysis) -> Vec<Sweep<'_>> {
    let mut found = Vec::new();
    for workload in &analysis.workloads {
        let rows: Vec<&Row> =
            analysis.rows_of(Role::Result).filter(|row| row.id.workload == workload.name).collect();
        let mut values: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for row in &rows {
            for (name, value) in &row.id.parameters.0 {
                if let crate::results::ParameterValue::Number(number) = value {
                    values.entry(name).or_default().insert(*number);
                }
            }
        }
        let Some((parameter, _)) = values
            .iter()
            .filter(|(_, numbers)| numbers.len() >= LEAST_POINTS)
            .max_by_key(|(_, numbers)| numbers.len())
        else {
            continue;
        };
        let mut sweeps: Vec<Sweep<'_>> = Vec::new();
        for row in rows {
            let value = row.id.parameters.0.get(*parameter);
            let Some(number) = value.and_then(crate::results::ParameterValue::number) else {
                continue;
            };
            let mut id = row.id.clone();
            id.parameters = id.parameters.without(parameter);
            match sweeps.iter_mut().find(|sweep| sweep.id == id) {
                Some(sweep) => sweep.points.push((number, row)),
                None => sweeps.push(Sweep {
                    parameter: (*parameter).to_owned(),
                    id,
                    points: vec![(number, row)],
                }),
            }
        }
        sweeps.retain(|sweep| sweep.points.len() >= LEAST_POINTS);
        for sweep in &mut sweeps {
            sweep.points.sort_by(|(first, _), (second, _)| first.total_cmp(second));
        }
        found.append(&mut sweeps);
    }
    found
}
