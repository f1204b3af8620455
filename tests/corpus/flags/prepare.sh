mkdir -p dir/a dir/b; echo 1 > dir/a/one; echo 2 > dir/b/two; echo r > dir/READ.md; echo f > file; chmod 600 dir/a/one
