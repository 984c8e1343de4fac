//! Building over a mesh: every aux works, and what comes out is what a build without the mesh gives.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use netns_tests::lab::Nat;
use netns_tests::stage::Stage;

/// Two cores compile everything twice in less.
pub(crate) const BUILD: Duration = Duration::from_secs(60);

/// Modules of the generated project, each a C file of its own.
const MODULES: usize = 36;

#[test]
fn objects_compiled_on_the_aux_equal_local_ones_and_the_program_passes_its_test() {
    let stage = Stage::new("building").unwrap();
    let project = stage.folder.path().join("project");
    generate(&project);
    let runners: Vec<_> = (0..3).map(|i| stage.runner(&format!("aux{i}"), Nat::Azure).unwrap()).collect();
    let home = stage.runner("primary", Nat::Azure).unwrap();
    let start = |(i, runner)| stage.mesh(runner, &["aux", "--slots", "2", "--index", &i32::to_string(&i)]).unwrap();
    let aux: Vec<_> = (0..).zip(&runners).map(start).collect();
    let make = ["make", "-C", project.to_str().unwrap(), "-j8"];
    let args = [&["primary", "--aux", "3", "--min-aux", "3", "--"], &make[..]].concat();

    let mut primary = stage.mesh(&home, &args).unwrap();
    assert_eq!(primary.wait(BUILD).unwrap(), 0, "{}", primary.output());
    for mut aux in aux {
        assert_eq!(aux.wait(Duration::from_secs(2)).unwrap(), 0, "{}", aux.output());
    }
    assert!(passes_its_test(&project));
    let over_the_mesh = take_objects(&project);
    assert!(plain_make(&project));
    let alone = take_objects(&project);

    let report = stage.report(&home).unwrap();
    for peer in report["peers"].as_array().unwrap() {
        assert!(peer["jobs"].as_u64().unwrap() > 0, "{report}");
    }
    assert_eq!(alone.len(), MODULES + 1);
    assert_eq!(names(&over_the_mesh), names(&alone));
    for (name, object) in &alone {
        assert!(over_the_mesh[name] == *object, "{name} differs");
    }
}

/// A project whose objects would tell where and how they were compiled: paths by `__FILE__`, line numbers, debug information.
pub(crate) fn generate(project: &Path) {
    fs::create_dir_all(project.join("src")).unwrap();
    let mut header = String::from("#pragma once\n#include <assert.h>\n#include <stdio.h>\n#include <stdlib.h>\n");
    let mut main = String::from("#include \"all.h\"\nint main(void) {\n  unsigned long sum = 0;\n");
    for i in 0..MODULES {
        writeln!(header, "unsigned long module_{i}(unsigned long seed);\nextern const char *const where_{i};").unwrap();
        writeln!(main, "  sum = sum * 31 + module_{i}({i});\n  assert(where_{i}[0] == 's');").unwrap();
        fs::write(project.join(format!("src/module_{i}.c")), module(i)).unwrap();
    }
    main.push_str("  printf(\"%lu\\n\", sum);\n  return 0;\n}\n");
    fs::write(project.join("src/all.h"), header).unwrap();
    fs::write(project.join("src/main.c"), main).unwrap();
    fs::write(project.join("Makefile"), MAKEFILE).unwrap();
}

fn module(i: usize) -> String {
    format!(
        "#include \"all.h\"\nconst char *const where_{i} = __FILE__;\nstatic int compare(const void *a, const void *b) {{\n\
         \x20 unsigned long x = *(const unsigned long *)a, y = *(const unsigned long *)b;\n  return (x > y) - (x < y);\n}}\n\
         unsigned long module_{i}(unsigned long seed) {{\n  unsigned long values[64], sum = 0;\n\
         \x20 for (int at = 0; at < 64; at++) values[at] = seed = seed * 6364136223846793005ul + {i};\n\
         \x20 qsort(values, 64, sizeof *values, compare);\n  for (int at = 1; at < 64; at++) {{\n\
         \x20   assert(values[at - 1] <= values[at]);\n    sum ^= values[at] >> (at % {});\n  }}\n  return sum;\n}}\n",
        i % 7 + 2
    )
}

const MAKEFILE: &str = "CFLAGS = -O2 -g -Wall\nsources := $(wildcard src/*.c)\n\
    program: $(sources:.c=.o)\n\t$(CC) -o $@ $^\n%.o: %.c src/all.h\n\t$(CC) $(CFLAGS) -c -o $@ $<\n";

/// The number that the algorithm gives in any build: what a second program, built without make, prints.
pub(crate) fn passes_its_test(project: &Path) -> bool {
    let expected = project.join("expected");
    let sources = (0..MODULES).map(|i| format!("src/module_{i}.c")).chain(["src/main.c".into()]);
    let built = Command::new("cc").arg("-o").arg(&expected).args(sources).current_dir(project).status().unwrap();
    let says = |program: &Path| Command::new(program).output().unwrap();
    let (expected, program) = (says(&expected), says(&project.join("program")));
    built.success() && program.status.success() && program.stdout == expected.stdout
}

/// Every object without its debug information; the build's results are removed.
fn take_objects(project: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut objects = BTreeMap::new();
    for entry in fs::read_dir(project.join("src")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "o") {
            let stripped = Command::new("objcopy").arg("--strip-debug").arg(&path).status().unwrap();
            assert!(stripped.success());
            objects.insert(path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap());
            fs::remove_file(&path).unwrap();
        }
    }
    fs::remove_file(project.join("program")).unwrap();
    objects
}

fn plain_make(project: &Path) -> bool {
    Command::new("make").arg("-j2").arg("-C").arg(project).status().unwrap().success()
}

fn names(objects: &BTreeMap<String, Vec<u8>>) -> Vec<&String> {
    objects.keys().collect()
}
