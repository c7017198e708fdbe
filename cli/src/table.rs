//! Tables without borders, as docker prints them.

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};

/// A table with headings; a heading that begins with `>` is of a column of figures, set to the right.
pub fn table<const N: usize>(
    headings: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let cell = |heading: &str, text: &str| {
        let cell = Cell::new(text);
        if heading.starts_with('>') { cell.set_alignment(CellAlignment::Right) } else { cell }
    };
    let titles = headings.map(|heading| cell(heading, heading.trim_start_matches('>')));
    table.set_header(titles);
    for row in rows {
        table.add_row(headings.iter().zip(row.iter()).map(|(heading, text)| cell(heading, text)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let rows =
            [["a".to_owned(), "1 B".to_owned()], ["long-name".to_owned(), "12 KiB".to_owned()]];
        assert_eq!(
            table(["NAME", ">SIZE"], rows.into_iter()),
            "NAME          SIZE\na              1 B\nlong-name   12 KiB\n"
        );
        assert_eq!(table(["NAME"], std::iter::empty()), "NAME\n");
    }
}
