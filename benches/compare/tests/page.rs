//! The page in a browser.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use resvg::tiny_skia::Pixmap;
use thinstore_compare::report::{ReportOptions, write_comparison, write_report};

/// Runs chromium on a page, and gives what it wrote: the document as it came to be, and its log.
fn chromium(page: &Path, arguments: &[&str]) -> (String, String) {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("timeout")
        .args(["--kill-after=5", "120", "chromium"])
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--no-first-run", "--disable-background-networking", "--disable-component-update"])
        .args(["--enable-logging=stderr", "--virtual-time-budget=10000", "--hide-scrollbars"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(arguments)
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("timeout and chromium: apt-get install chromium");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}\n{log}", output.status);
    (String::from_utf8_lossy(&output.stdout).into_owned(), log)
}

/// Of a screenshot: the share of points that are not of the ground's colour, and the ground's brightness.
fn looked_at(picture: &Path) -> (f64, u8) {
    let pixmap = Pixmap::load_png(picture).expect("a screenshot");
    let ground = pixmap.pixels()[0];
    let other = pixmap.pixels().iter().filter(|point| **point != ground).count();
    let share = f64::from(u32::try_from(other).unwrap())
        / f64::from(u32::try_from(pixmap.pixels().len()).unwrap());
    (share, ground.red())
}

/// Screenshots stay in the folder THINSTORE_KEEP_PAGE, if that is set.
fn kept(folder: &Path) -> PathBuf {
    std::env::var_os("THINSTORE_KEEP_PAGE").map_or_else(|| folder.to_owned(), PathBuf::from)
}

fn no_console_message(log: &str) {
    let said: Vec<&str> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(said.is_empty(), "the page's console has:\n{}", said.join("\n"));
}

#[test]
#[ignore = "needs chromium"]
fn every_plot_is_in_the_page_that_a_browser_shows_and_its_console_is_empty() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = kept(temporary.path());
    let results = common::results(1, 5, 1);
    let report = write_report(&results, &folder, &ReportOptions::default()).unwrap();
    let (document, log) = chromium(&report.page, &["--dump-dom"]);
    no_console_message(&log);
    assert!(document.contains("data-ready=\"yes\""), "the script did not come to its end");
    let mut plots = 0;
    for entry in std::fs::read_dir(folder.join("plots")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = name.strip_suffix(".svg") else { continue };
        // All ratios are a table in the page.
        if name != "ratios" {
            assert!(document.contains(&format!("id=\"{name}\"")), "{name} is not in the page");
        }
        plots += 1;
    }
    assert_eq!(plots, report.plots);
    assert_eq!(document.matches("<figure ").count(), plots - 1);
    assert!(document.contains("<table class=\"heat sortable\""));

    for (name, size, scheme) in [
        ("light", "1400,2400", "1"),
        ("dark", "1400,2400", "0"),
        ("narrow-light", "420,2400", "1"),
        ("narrow-dark", "420,2400", "0"),
    ] {
        let picture = folder.join(format!("{name}.png"));
        let (_, log) = chromium(
            &report.page,
            &[
                &format!("--screenshot={}", picture.display()),
                &format!("--window-size={size}"),
                &format!("--blink-settings=preferredColorScheme={scheme}"),
            ],
        );
        no_console_message(&log);
        let (share, ground) = looked_at(&picture);
        assert!(share > 0.05 && share < 0.8, "{name}: {share} of the picture is drawn on");
        assert_eq!(ground < 100, name.ends_with("dark"), "{name}: the ground is {ground}");
    }
}

#[test]
#[ignore = "needs chromium"]
fn the_page_of_two_runs_is_shown_without_a_word_from_the_console() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = kept(temporary.path()).join("two");
    let (first, second) = (common::results(1, 5, 1), common::results(2, 5, 1));
    let names = (("a.jsonl", &first), ("b.jsonl", &second));
    let report = write_comparison(names.0, names.1, &folder, &ReportOptions::default()).unwrap();
    let picture = folder.join("two.png");
    let (_, log) = chromium(
        &report.page,
        &[&format!("--screenshot={}", picture.display()), "--window-size=1400,1600"],
    );
    no_console_message(&log);
    let (share, _) = looked_at(&picture);
    assert!(share > 0.05 && share < 0.9, "{share}");
    let (document, log) = chromium(&report.page, &["--dump-dom"]);
    no_console_message(&log);
    let mut plots = 0;
    for entry in std::fs::read_dir(folder.join("plots")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = name.strip_suffix(".svg") else { continue };
        assert!(document.contains(&format!("id=\"{name}\"")), "{name} is not in the page");
        assert!(folder.join(format!("plots/{name}.png")).exists(), "{name}");
        plots += 1;
    }
    assert_eq!((plots, document.matches("<figure ").count()), (report.plots, report.plots));
    assert_eq!(plots, first.run.workloads.len(), "one of each workload");
}

/// Clicks as a person does, and says what came of it.
const CLICKS: &str = r#"<script>
const said = {};
const shown = (element) => element.getClientRects().length > 0;
const bars = document.getElementById('bars-chown-chown').querySelector('svg');
const rows = () => Array.from(bars.querySelectorAll('.row')).filter(shown);
const chip = (name) => Array.from(document.querySelectorAll('[data-toggle]')).find((c) => c.textContent.trim() === name);
said.before = [rows().length, bars.viewBox.baseVal.height];
chip('qcow2').click();
said.hidden = [rows().length, bars.viewBox.baseVal.height];
said.column = Array.from(document.querySelectorAll('table.heat th')).some((t) => t.textContent === 'qcow2' && shown(t));
document.getElementById('every').click();
said.again = [rows().length, bars.viewBox.baseVal.height];
const heat = document.querySelector('table.heat');
const heading = Array.from(heat.tHead.rows[0].cells).find((cell) => cell.textContent === 'thin');
const column = heading.cellIndex;
const values = () => Array.from(heat.tBodies[0].rows)
  .map((row) => row.cells[column].dataset.value).filter((value) => value !== undefined).map(Number);
const original = values();
const falling = (list) => list.every((value, place) => place === 0 || list[place - 1] >= value);
heading.querySelector('button').click();
said.falling = falling(values()) && heading.getAttribute('aria-sort') === 'descending';
heading.querySelector('button').click();
said.rising = falling(values().reverse()) && heading.getAttribute('aria-sort') === 'ascending';
heading.querySelector('button').click();
said.undone = JSON.stringify(values()) === JSON.stringify(original) && !heading.hasAttribute('aria-sort');
const chosen = document.getElementById('chosen');
chosen.value = 'chown';
chosen.dispatchEvent(new Event('change'));
said.chosen = Array.from(document.querySelectorAll('figure[data-workload]')).filter(shown).map((f) => f.dataset.workload);
const cell = heat.querySelector('td.cell[data-tip]');
cell.dispatchEvent(new PointerEvent('pointermove', { bubbles: true, clientX: 300, clientY: 300 }));
const tip = document.getElementById('tip');
said.tip = getComputedStyle(tip).visibility === 'visible' && tip.textContent.includes('as good as overlay2');
const reference = document.getElementById('reference');
const line = heat.tBodies[0].rows[0];
const place = (name) => Array.from(heat.tHead.rows[0].cells).find((c) => c.textContent === name).cellIndex;
const values_of = () => ['thin', 'overlay2', 'vfs'].map((name) => Number(line.cells[place(name)].dataset.value));
const compareWith = (name) => {
  reference.value = Array.from(reference.options).find((option) => option.text === name).value;
  reference.dispatchEvent(new Event('change'));
};
const drawn = () => Array.from(document.querySelectorAll('.score > span')).filter(shown).map((s) => s.textContent);
said.to_overlay2 = values_of();
said.table = heat.tBodies[0].textContent;
compareWith('thin');
said.to_thin = values_of();
said.heading = document.querySelector('#overview h2').textContent;
said.own = line.cells[place('thin')].className + ' ' + line.cells[place('overlay2')].classList.contains('cell');
said.told = line.cells[place('overlay2')].dataset.tip.includes('as good as thin')
  || line.cells[place('overlay2')].dataset.tip.includes('no difference from thin');
said.scores = drawn();
compareWith('overlay2');
said.back = said.table === heat.tBodies[0].textContent;
delete said.table;
document.body.insertAdjacentHTML('beforeend', `<pre id="said">${JSON.stringify(said)}</pre>`);
</script></body>"#;

#[test]
#[ignore = "needs chromium"]
fn clicking_sorts_filters_and_tells() {
    let folder = tempfile::tempdir().unwrap();
    let results = common::results(1, 5, 1);
    let options = ReportOptions { without_png: true, ..ReportOptions::default() };
    let report = write_report(&results, folder.path(), &options).unwrap();
    let page = std::fs::read_to_string(&report.page).unwrap();
    std::fs::write(&report.page, page.replace("</body>", CLICKS)).unwrap();
    let (document, log) = chromium(&report.page, &["--dump-dom"]);
    no_console_message(&log);
    let (_, said) =
        document.rsplit_once("<pre id=\"said\">").expect("the clicks came to their end");
    let said: serde_json::Value =
        serde_json::from_str(said.split_once("</pre>").unwrap().0).unwrap();
    println!("{said}");
    let pair = |name: &str| (said[name][0].as_f64().unwrap(), said[name][1].as_f64().unwrap());
    let (count, height) = pair("before");
    assert!((count - 8.0).abs() < 0.1);
    // One bar less, and no gap where it was.
    let (fewer, lower) = pair("hidden");
    assert!((count - fewer - 1.0).abs() < 0.1 && (height - lower - 23.0).abs() < 0.1, "{said}");
    assert_eq!(said["column"], false);
    assert_eq!(pair("again"), (count, height));
    for name in ["falling", "rising", "undone", "tip"] {
        assert_eq!(said[name], true, "{name}: {said}");
    }
    assert_eq!(said["chosen"], serde_json::json!(["chown"]));
    // With another reference: its own figure, the reciprocal of what was its ratio, and what follows from both.
    let values = |name: &str| [0, 1, 2].map(|place| said[name][place].as_f64().unwrap());
    let ([thin, _, _], [figure, overlay2, _]) = (values("to_overlay2"), values("to_thin"));
    assert!((thin * overlay2 - 1.0).abs() < 1e-9, "{said}");
    let row = thinstore_compare::analysis::Analysis::of(&results, Some("thin"), options.bootstrap);
    let row = row.unwrap();
    let place = row.drivers.iter().position(|driver| driver.name == "thin").unwrap();
    let median = row.rows[0].cells[place].as_ref().unwrap().estimate.median;
    assert!((figure - median).abs() < 1e-9 * median, "{said}");
    assert_eq!(said["heading"], "Compared with thin");
    assert_eq!(said["own"], "figure true");
    let scores: Vec<&str> =
        said["scores"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(scores.contains(&"overlay2") && !scores.contains(&"thin"), "{scores:?}");
    assert_eq!((&said["told"], &said["back"]), (&true.into(), &true.into()), "{said}");
}
